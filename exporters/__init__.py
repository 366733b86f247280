"""Turn a torch module into files that runtimes read, and prove that they compute the same."""
