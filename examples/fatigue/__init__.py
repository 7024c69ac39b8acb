"""The real computation of the demo: a notched specimen, from three tensile properties to a life.

Each noun has its module; the programs `make_site_data.py`, `site_program.py` and `fatigue_life.py`
are started by path and know nothing of sekisho. Units everywhere: mm, N, MPa; strains and
plastic strains are plain numbers; a shear strain is the engineering one.
"""
