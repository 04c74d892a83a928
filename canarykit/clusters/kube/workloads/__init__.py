"""The workloads of a service on Kubernetes: its objects, its pods, and how they are."""
