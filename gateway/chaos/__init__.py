"""Rehearsals: the gateway as it is configured, before upstreams and a store that fail to order.

`scenario.py` is the file that people write, `verdict.py` what is made of what clients saw; both are
pure. `standin.py` and `store.py` are what fails, `substitute.py` puts them into the configuration,
`load.py` is the clients, `run.py` the conductor. Only the command `lockgate chaos` loads any of it.
"""
