"""The report: a folder of results as one page that needs nothing else, and as tables for papers.

``folder`` reads what ``lgmc eval`` wrote, ``match`` finds points of equal rate, ``pictures`` makes
the frames of the viewer, ``content`` is what the page's scripts are given, ``page`` puts the page
together from the templates beside it, ``papers`` writes LaTeX and CSV. docs/report.md explains it.
"""
