"""Running a model: the promise that every engine keeps, the engines, and rollouts of many videos on one of them."""
