"""medbench: does a hospital need a specialist medical vision-language model, or will an adapted generalist do?"""

__version__ = "0.1.0"
