"""Token vectors on disk: residual codes, centroids, lists."""
