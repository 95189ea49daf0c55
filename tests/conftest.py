"""What all tests need of the process that they run in."""

import os
import signal

# What a shell without job control starts in the background ignores Ctrl-C, and hands that on to its children.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# No window opens, and no OpenGL with an LLVM of its own is loaded, beside which Triton's crashes.
os.environ.setdefault("SDL_VIDEODRIVER", "dummy")
