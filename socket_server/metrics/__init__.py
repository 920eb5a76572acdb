"""Metrics: counters, gauges and histograms of a worker, and their sum over all workers of this gunicorn.

A counter on a hot path costs one integer addition: no lock, no label look-up, no library. The text that Prometheus reads is
made when it is scraped.
"""
