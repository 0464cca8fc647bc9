"""The rule of a task that tests make up: workers import it, too."""


def label_argued(text: str) -> str | None:
    return {"meow": "cat", "woof": "dog"}.get(text)
