"""Fields that recipes and other requests share, as users write them."""
