"""The Chinese edition: catalogues of prose, what they keep to, notebooks made of them."""
