"""`python -m frontdesk.testing`: the scripted model as a server of its own."""

from frontdesk.testing.model import main

main()
