"""The Chinese edition: catalogues of its prose, what they keep to, and the notebooks made of them."""
