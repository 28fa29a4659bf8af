"""Events out of streams of other Redis servers, and into them."""
