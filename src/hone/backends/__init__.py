"""Where a run happens: in this process, in several of this machine, or on several machines."""
