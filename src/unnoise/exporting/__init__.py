"""Write a run so that it draws without PyTorch."""
