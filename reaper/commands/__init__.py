"""The commands, one file each: its options, its help, and a few lines that call who does the work.

These files are imported to show the help, so that they import click alone; the work is imported when it runs.
"""
