"""Networks from artifacts, and artifacts from networks."""
