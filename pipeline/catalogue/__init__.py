"""What is sold, at which price, to whom, and who has which server: YAML in, versions in the database.

Pure but for `store`: values in `model`, rules of meters in `aggregations`, rules of prices in `pricing`.
"""
