"""Reference agents over the reference tools, guarded.

`python -m graphs.demo` shows a brief become pictures, a film and exports, then an attack.
`python -m graphs.studio` is the same studio, one agent per stage, on your own brief and files.
`python -m graphs.solo` is one agent for all stages, by `create_agent` with the middleware.
"""
