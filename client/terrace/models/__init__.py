"""The wire: what goes over HTTP between client, API, agents and console, as pydantic models.

Unknown fields are refused in requests and ignored in answers, so that an older client can read a newer service.
Money and milli-GPU are integers with the unit in the name; times are RFC 3339 in UTC. Grouped as the API is.
"""
