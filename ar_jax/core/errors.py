"""What the user can mend."""


class UserError(ValueError):
  """Something the user can mend. `main` prints it as one line and exits 1.

  The message says what is wrong, where, and what to do.
  """
