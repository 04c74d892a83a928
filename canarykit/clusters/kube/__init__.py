"""Versions as Deployments of a Kubernetes cluster."""
