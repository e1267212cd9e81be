"""Reference agents over the reference tools, guarded: a studio of six agents, a solo agent, a demo.

    python -m graphs.demo       watch a brief become pictures, a film and exports, then an attack
    python -m graphs.studio     the same studio on your own brief and files
    python -m graphs.solo       one agent for all stages, by `create_agent` with the middleware
"""
