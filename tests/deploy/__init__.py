"""Tests of what puts the service somewhere: image, compose, chart, rules, replicas behind a balancer."""
