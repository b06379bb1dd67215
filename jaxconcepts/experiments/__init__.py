"""What is trained: a task, a model and what is measured along the training, a file each."""
