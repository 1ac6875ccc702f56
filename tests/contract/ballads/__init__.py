"""Songs of two verses and what people say of them: a vertical in a package of its own."""
