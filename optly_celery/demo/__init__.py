"""The pipeline on one machine: a stand-in for Optimizely's endpoint, and a guided tour."""
