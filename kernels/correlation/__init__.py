"""Local correlation volume: how well each pixel matches the pixels round it in another image."""
