"""DNS: names of containers and services, answered by a small process of its own on every gateway address."""
