"""validate: requests and answers held to a contract, or to schemas of the route's own."""
