"""Programs that try to get out of the sandbox, to eat the machine or to be judged right without an answer."""

from hostile.bombs import BOMBS
from hostile.cheats import CHEATS
from hostile.controls import CONTROLS
from hostile.escapes import ESCAPES
from hostile.others import OTHERS

CORPUS = (*ESCAPES, *BOMBS, *CHEATS, *OTHERS, *CONTROLS)
