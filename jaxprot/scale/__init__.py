"""Prediction over very many inputs: a job of items, the folder of parts that survives a kill, workers on Ray.

A system joins with a `Job` and its items; a command runs them with `cli.options.distribute`:

    def predictor(weights, seed):                      # module level: workers unpickle it by name
        model = load(weights)                          # once in each worker process

        def predict(items):                            # a block of inputs
            for place, item in enumerate(items):
                yield place, columns_of(model.predict(item.content, seed=seed))   # or the exception of this input

        return predict

    job = Job("system predict", {"weights": sha256, "seed": 0}, partial(predictor, path, 0), {"name": "str", ...})
    items = file_items(names, paths)

`thermompnn/scale.py` is the example in full.
"""
