"""Behind `tinyvid.gradcheck`: derivatives from function values, and the suite over everything.

`differences` takes derivatives from values and finds kinks, `pullback` sees a function of
tensors as one of arrays, `compare` holds the two against each other and `result` says what came
of it. `suite` is what `tinyvid gradcheck` runs, on the calls of `examples` and the cases of
`problems`.
"""
