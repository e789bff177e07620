"""tinyvid: a small framework for video classification, made to be read."""

import os as _os

# In a bare checkout the folder `kernels` stands beside this package, not inside it.
if not _os.path.isdir(_os.path.join(__path__[0], "kernels")):
    __path__.append(_os.path.dirname(__path__[0]))

__version__ = "0.1.0"
