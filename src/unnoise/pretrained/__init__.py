"""Networks whose weights were trained by others, on other images."""
