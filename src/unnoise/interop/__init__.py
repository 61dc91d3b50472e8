"""Read and write the model formats of other libraries."""
