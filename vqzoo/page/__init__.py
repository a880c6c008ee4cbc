"""One HTML file that shows the records of runs: sizes, accuracy, layers, examples."""
