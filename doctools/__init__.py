"""What the documentation is made of besides its pages: the public surface, tables from code, the mkdocs hook."""
