"""`tadpole`: the command line of people who train on a service. It knows the service by HTTP only."""
