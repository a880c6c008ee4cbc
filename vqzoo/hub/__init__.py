"""Push to, pull from and search the Hugging Face Hub."""
