"""What a network costs to run, as `vqzoo bench --save` keeps it beside an artifact."""
