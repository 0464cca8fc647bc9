"""The rule of a task that tests make up: workers import it, too."""


def told(text: str) -> str | None:
    return {"meow": "cat", "woof": "dog"}.get(text)
