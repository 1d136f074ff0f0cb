"""Tables, figures and the page of a report. Nothing here reads or writes a file of the store.

scores.py      what is measured of one run; rows.py: runs that differ only in their seed, as one row
formats.py     rows as text and as cells; numbers.py: counts, bytes and seconds for people
tidy.py        every number of every round, for other tools
latex.py       tables for a paper; matrix.py: algorithms by data; paper.py: measured beside published
summary.py     the first sentence; diagnosis.py: what goes well or wrong, and what to try
figures.py     the figures; charts.py: what they are drawn of; theme.py: how they look; words.py: what they show, in words
pairs.py       the generated images of a run as sheets
page.py        the page of a report, one HTML file
"""
