"""Change feed: what a record did to a row, and the point at which a consumer goes on."""
