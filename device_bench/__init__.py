"""Measures a model on the machine it runs on. Needs neither torch, onnx, tensorflow nor prefect."""
