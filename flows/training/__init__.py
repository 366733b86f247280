"""What learns from runs and tables: meta-training, evaluation, experience, personalising, explaining."""
