"""Run the command line as ``python -m agent_conn``."""

from agent_conn.cli import main

if __name__ == "__main__":
    main()
