"""Commands that `restore` finds by entry points; nothing heavy is imported before one runs."""

from medical.commands.converting import convert as convert
from medical.commands.listing import scans as scans
from medical.commands.restoring import volume as volume
