"""The pages: rendered on the server from what `app` says, behind the guard of `api`; each names its JSON twin."""
